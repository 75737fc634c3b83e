"""What judges a photo: frozen blind quality models, and how the bundled one was made."""

# What the flag --biqa of every verb takes; here, where a command line finds it without loading torch.
SPEC_HELP = (
    "quality model: bundled, koncept512[:FILE], or a TorchScript scorer FILE.ts; loading a TorchScript file can run any code that is in it,"
    " so name only files that you trust (default: bundled)"
)
