"""Skills: small programs on a control panel over a frozen model."""
