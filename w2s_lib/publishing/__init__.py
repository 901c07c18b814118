"""From chapters to pages: execute, build, check, plan."""
