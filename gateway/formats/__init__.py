"""What models' bodies look like: templates of requests, streams and the text in replies."""
