"""
What tests of dcosnet and of third-party parts are made with.

Public: fakes, contract suites and hypothesis strategies. The extra `test`
brings what they need; nothing outside of tests imports this package.
"""
