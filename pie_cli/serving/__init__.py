"""Servers for editors: the language server, HTTP, and a socket for the command line."""
