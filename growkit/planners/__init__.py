"""From a request and headers to a plan. They touch no bytes of any tensor."""
