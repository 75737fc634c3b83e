"""The page in the browser: its built files, and the server that hands them to this machine alone. Its sources are in the top-level folder page/."""
