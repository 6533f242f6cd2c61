"""Makes what is there equal to what is wanted, for any data plane, again and again."""
