"""The replicated store: what each node says, kept on its disk where it must last."""
