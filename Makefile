# Thin: each goal is a script, which says what it does.
.PHONY: demo demo-stop test install install-profiled

PREFIX ?= $(HOME)/.local

# JupyterLab behind a URL, from nothing: installs what is missing, builds, makes the image, starts it.
demo:
	@scripts/demo

demo-stop:
	@scripts/demo stop

# Every test, with what they need.
test:
	@scripts/test

# Without root: the program, its completions and its man pages.
install:
	@scripts/install $(PREFIX)

# The same, built with a profile of its own work, for what a site's users all run: as root, see docs/admin.md. CPU names the oldest
# processor it has to run on.
install-profiled:
	@scripts/install --profiled $(if $(CPU),--cpu $(CPU)) $(PREFIX)
