"""What the test suites share: engines, clients, terminals, the leftovers check; never a mock of any of these."""
