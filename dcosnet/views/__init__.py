"""Read models: pure folds of the store that everybody shares."""
