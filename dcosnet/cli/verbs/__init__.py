"""One file for each verb of the `dcosnet` command."""
