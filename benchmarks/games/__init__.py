"""Which algorithm learns which game: every algorithm on every game with a small model, over seeds fixed in advance."""
