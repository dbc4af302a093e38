"""What the test suites share: engines under test, clients, terminals, the leftovers check; never a mock of any of these."""
