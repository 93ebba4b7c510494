"""Bugs of rows that are read ahead or kept for the next update; a part of mutations.py."""

from mutation import Mutation

_DEDUP_LOOKUP_TEST = "tests/cc/dedup_lookup_test.cc::RowsThatWereReadBeforeAnEvent"
_LAST_LOOKUP_TEST = "tests/cc/last_lookup_test.cc::AnUpdateAfterALookup"

LOOKUP = [
    Mutation(
        "rows that were read ahead are used whatever has happened since",
        "cc/lib/table.h",
        "return changes == other.changes && layout == other.layout && inserts == other.inserts;",
        "return changes >= 0 && other.changes >= 0;",
        _DEDUP_LOOKUP_TEST,
    ),
    Mutation(
        "rows that were read before others were inserted are used with those",
        "cc/lib/sharded_table.h",
        "    ++moment_.inserts;\n",
        "",
        _DEDUP_LOOKUP_TEST,
    ),
    Mutation(
        "a lookup that bounds norms gives zeros for what was removed in its midst",
        "cc/lib/sharded_table_lookup.h",
        "    SPARSE_EMB_RETURN_IF_ERROR(ReadOrInsertAlone(keys, n, found->rows.data(), out, pool));\n",
        "    rows_.Read(keys, n, Missing::kZeros, out, nullptr, pool);\n",
        "tests/cc/lookup_events_test.cc::AnEventBeforeNormsAreBound",
    ),
    Mutation(
        "an update takes the rows of other keys that were looked up",
        "cc/lib/last_lookup.h",
        "    if (!std::equal(keys_.begin(), keys_.end(), keys)) return false;\n",
        "",
        "tests/cc/last_lookup_test.cc::RowsAreGivenOnce",
    ),
    Mutation(
        "an update takes a row that has been removed",
        "cc/lib/sharded_table.h",
        "    ++moment_.layout;\n    logs_.Add(keys, n);\n    rows_.Remove",
        "    logs_.Add(keys, n);\n    rows_.Remove",
        _LAST_LOOKUP_TEST,
    ),
    Mutation(
        "an update takes rows of before a new binding",
        "cc/lib/sharded_table.h",
        "    stored_state_width_ = -1;\n    ++moment_.layout;\n",
        "    stored_state_width_ = -1;\n",
        _LAST_LOOKUP_TEST,
    ),
    Mutation(
        "an update takes rows of before a load",
        "cc/lib/sharded_table_saving.h",
        "  ++moment_.changes;\n  ++moment_.layout;\n  logs_.AddEverything();\n  if (changes",
        "  ++moment_.changes;\n  logs_.AddEverything();\n  if (changes",
        "tests/cc/change_log_test.cc::AnUpdateAfterALoad",
    ),
]
