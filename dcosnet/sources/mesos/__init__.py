"""Facts from Mesos: the masters' event stream, and the state of an agent."""
