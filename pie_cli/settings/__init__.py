"""Settings that outlive a command line: files, variables, and what they may say."""
