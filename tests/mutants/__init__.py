"""Changes the code, one small fault at a time, and looks for tests that notice."""
