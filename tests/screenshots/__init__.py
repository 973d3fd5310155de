"""The pictures of pages in docs/, taken in a real Chromium."""
