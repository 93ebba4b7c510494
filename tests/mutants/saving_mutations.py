"""Bugs of how tables go to files and come back; a part of mutations.py."""

from mutation import Mutation

SAVING = [
    Mutation(
        "blocks that end half way are taken for all",
        "cc/lib/block_queue.h",
        "    if (stopped_ && !ended_) return false;\n",
        "",
        "tests/cc/block_stream_test.cc::AReaderWhoseGiverHasStopped",
    ),
    Mutation(
        "the last block is lost",
        "cc/lib/block_stream.h",
        "    SPARSE_EMB_RETURN_IF_ERROR(Give());\n    queue_->End();\n",
        "    queue_->End();\n",
        "tests/cc/block_stream_test.cc::WhatIsWrittenInPieces",
    ),
    Mutation(
        "a table stays locked while somebody has the error of its load",
        "tf_sparse_emb/table_resource.py",
        "            del load\n",
        "            pass\n",
        "tests/test_saving_blocks.py::test_a_store_that_fails_half_way_through_a_load_leaves_the_table_as_it_was",
    ),
]
