"""What riskhub claims about its speed and size, measured on the machine at hand."""
