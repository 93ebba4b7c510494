"""`python -m tf_sparse_emb`."""

import sys

from tf_sparse_emb.command import main

if __name__ == "__main__":
    sys.exit(main())
