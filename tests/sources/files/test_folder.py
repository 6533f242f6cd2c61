"""The folder's fold: last good contents, and one owner for each identity."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.task import TaskId
from dcosnet.sources.files.folder import Folder, Look, Unchanged, Unreadable
from dcosnet.sources.files.services import Content
from dcosnet.sources.services import Flaw, Service

BROKEN = Content(flaws=(Flaw("", "is not TOML", "correct it"),))


def folder() -> Folder:
    return Folder("/services.d", "files", "n")


def good(*names: str, weight: int = 1) -> Content:
    return Content(tuple(Service(name, "g", ip_address("127.0.0.1"), weight=weight) for name in names))


def standing(one: Folder) -> dict[str, str]:
    return {task.task.removesuffix("@n"): held.file for task, held in one.standing.items()}


def test_a_file_that_breaks_keeps_its_last_good_content() -> None:
    """A mistake while editing takes no service away."""
    one = folder()
    one.take(Look({"a.toml": good("web"), "b.toml": good("db")}))
    assert not one.take(Look({"a.toml": BROKEN, "b.toml": Unreadable("cannot be read; chmod it")}))
    assert standing(one) == {"web": "a.toml", "db": "b.toml"}
    assert [problem.reference for problem in one.problems] == ["a.toml", "b.toml"]
    assert all("last good content stays" in problem.reason for problem in one.problems)


def test_a_file_broken_from_the_start_harms_no_other() -> None:
    """It gives nothing and is told."""
    one = folder()
    assert one.take(Look({"a.toml": BROKEN, "b.toml": good("db")}))
    assert standing(one) == {"db": "b.toml"}
    assert [problem.reference for problem in one.problems] == ["a.toml"]
    assert "nothing of this file is used" in one.problems[0].reason


def test_a_missing_folder_is_no_removal() -> None:
    """What was known stays; and one that never was read is not synced."""
    one = folder()
    assert not one.take(Look(failure="the folder is not there"))
    assert not one.synced
    one.take(Look({"a.toml": good("web")}))
    assert not one.take(Look(failure="the folder is not there"))
    assert standing(one) == {"web": "a.toml"}
    assert one.problems[0].reference == "/services.d"


def test_of_two_services_with_one_name_the_earlier_stays() -> None:
    """A new file cannot take a name that lives; on a first reading the first file has it."""
    one = folder()
    one.take(Look({"b.toml": good("web")}))
    one.take(Look({"a.toml": good("web"), "b.toml": Unchanged()}))
    assert standing(one) == {"web": "b.toml"}
    (problem,) = one.problems
    assert problem.reference == "a.toml"
    assert "give each an `instance`" in problem.reason
    one.take(Look({"a.toml": Unchanged()}))
    assert standing(one) == {"web": "a.toml"}
    assert one.problems == ()
    fresh = folder()
    fresh.take(Look({"b.toml": good("web"), "a.toml": good("web")}))
    assert standing(fresh) == {"web": "a.toml"}


def test_the_first_of_two_in_one_file_stays() -> None:
    """Also after other files changed."""
    one = folder()
    twice = Content((*good("web").services, *good("web", weight=7).services))
    for _ in range(2):
        one.take(Look({"a.toml": twice}))
        assert [held.service.weight for held in one.standing.values()] == [1]


CONTENTS = st.sampled_from([good("x"), good("y", "z"), good("w", weight=0), good(), BROKEN, Unreadable("no; chmod")])
STEPS = st.lists(st.dictionaries(st.sampled_from(["a.toml", "b.toml", "c.json"]), CONTENTS) | st.none())


@given(steps=STEPS)
def test_history_shows_only_in_last_good_contents(steps: list[dict[str, Content | Unreadable] | None]) -> None:
    """
    Whatever happened before, the services are those of a fresh reading of each file's last good content.

    Names that two files claim are left out: there history decides, on purpose.
    """
    one, last = folder(), dict[str, Content]()
    for step in steps:
        one.take(Look(failure="gone") if step is None else Look(step))
        if step is not None:
            last = {name: last[name] for name in last if name in step}
            last |= {name: found for name, found in step.items() if isinstance(found, Content) and not found.flaws}
    fresh = folder()
    fresh.take(Look(last))
    claims = [service.id("files", "n") for content in last.values() for service in content.services]
    alone = {task for task in claims if claims.count(task) == 1}

    def of(one: Folder) -> dict[TaskId, object]:
        return {task: held for task, held in one.standing.items() if task in alone}

    assert one.standing.keys() == fresh.standing.keys()
    assert of(one) == of(fresh)
