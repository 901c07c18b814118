"""Language models cut to a depth: backbone, adapters, frozen trunk, classifier."""
