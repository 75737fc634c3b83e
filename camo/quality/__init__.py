"""What judges a photo: frozen blind quality models, and how the bundled one was made."""

SPEC_HELP = "bundled, koncept512[:FILE] or a TorchScript FILE.ts, which is code that will be run: load only files that you trust"
