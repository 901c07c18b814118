"""The book's charts."""
