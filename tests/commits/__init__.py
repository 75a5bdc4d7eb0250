"""The commit protocol, explored: the real code against a server that carries out its requests in every order."""
