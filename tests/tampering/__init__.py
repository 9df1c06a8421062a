"""What can be done to a hub where all is well (`auditing`), and what an audit must find of it."""
