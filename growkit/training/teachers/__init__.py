"""Teachers: models that run beside the student or were written down, and for how long they count."""
