"""From a folder to a committed store: plan, load, cut, embed, commit."""
