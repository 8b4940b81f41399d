"""The page and the record that go with a policy."""
