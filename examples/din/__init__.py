"""DIN (Deep Interest Network): the reference training example of tf_sparse_emb."""
