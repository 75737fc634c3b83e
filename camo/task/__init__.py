"""The 2020 task: its image sets, and the archives of its runs."""
