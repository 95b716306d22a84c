"""What goes to the Hugging Face hub. They know finished folders and the hub's client; ignorant of how anything was
made.
"""
