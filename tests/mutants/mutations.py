"""Bugs to be put back into the sources, each with a test that must find it.

A test is a part of the name of one in `tests/cc` (`tests/cc/slab_test.cc::KeysOfOneBucket`) or a node of pytest. To add
a mutation, take text that stands in its file once, and the quickest test that looks at what it breaks.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A bug: `old` becomes `new` in `file`."""

    name: str
    file: str
    old: str
    new: str
    test: str


_TABLE_TEST = "tests/cc/table_test.cc::RowsWiderThanAVectorRegister"
_RULES_TEST = "tests/cc/update_rules_test.cc::RulesFollowTheirFormulas"
_LAST_LOOKUP_TEST = "tests/cc/last_lookup_test.cc::AnUpdateAfterALookup"
_CHAIN_TEST = "tests/cc/change_log_test.cc::AWholeTableAndItsIncrements"

CPP = [
    Mutation(
        "a probe of slab ends one bucket early",
        "cc/lib/slab_store.h",
        "probe < buckets_.size(); ++probe",
        "probe + 1 < buckets_.size(); ++probe",
        "tests/cc/slab_test.cc::KeysOfOneBucketComeAndGo",
    ),
    Mutation(
        "a slot of slab is not moved on growth",
        "cc/lib/slab_store.h",
        "for (const Bucket& bucket : buckets_) {\n      for (int slot = 0;",
        "for (const Bucket& bucket : buckets_) {\n      for (int slot = 1;",
        "tests/cc/slab_test.cc::KeysOfOneBucketComeAndGo",
    ),
    Mutation(
        "a removed row of slab is handed out twice",
        "cc/lib/slab_store.h",
        "      first_free_ = KeyOf(rows_.Row(row_number));\n",
        "",
        "tests/cc/slab_test.cc::KeysOfOneBucketComeAndGo",
    ),
    Mutation(
        "a row of slab that is used again is not exported",
        "cc/lib/slab_store.h",
        "      is_free_[row_number] = false;\n",
        "",
        _TABLE_TEST,
    ),
    Mutation(
        "a shared loop leaves out the last unit of a range",
        "cc/lib/shared_loop.h",
        "fn_(begin, end);",
        "fn_(begin, end - 1);",
        "tests/cc/shared_loop_test.cc::ALoopIsDoneOnce",
    ),
    Mutation(
        "a range without memory is forgotten",
        "cc/lib/shared_loop.h",
        "        no_memory_ = true;\n",
        "",
        "tests/cc/shared_loop_test.cc::ARangeWithoutMemory",
    ),
    Mutation(
        "chunks of rows overlap",
        "cc/lib/row_chunks.h",
        "(large - (octave << kOctaveShift)) << (shift_ + octave)",
        "(large - (octave << kOctaveShift)) << shift_",
        "tests/cc/slab_test.cc::ChunkedRowsDoNotOverlap",
    ),
    Mutation(
        "a key does not follow into a gap before its home",
        "cc/lib/open_addressing_store.h",
        "< ((slot - gap) & mask())) continue;",
        "<= ((slot - gap) & mask())) continue;",
        _TABLE_TEST,
    ),
    Mutation(
        "a chain loses the row that moved into a gap",
        "cc/lib/chained_store.h",
        "      *to_last = gap;\n",
        "",
        _TABLE_TEST,
    ),
    Mutation(
        "an index table that was full finds all keys for ever",
        "cc/lib/index_store.h",
        "    used_[key - first_key_] = 0;\n    --size_;\n",
        "    used_[key - first_key_] = 0;\n",
        "tests/cc/table_test.cc::AFullIndexTableCanLoseKeys",
    ),
    Mutation(
        "a router of index makes one shard too few",
        "cc/lib/index_store.h",
        ">> range_bits_ >= kShards",
        ">> range_bits_ > kShards",
        "tests/cc/table_test.cc::AnIndexTableTakesEveryInputDim",
    ),
    Mutation(
        "the dedup forgets a key when its scratch grows",
        "cc/lib/key_dedup.cc",
        "      while (slots_[slot] != kEmpty) slot = (slot + 1) & mask;\n",
        "",
        "tests/cc/key_dedup_test.cc::KeysAreKnownAfterTheScratchHasGrown",
    ),
    Mutation(
        "the dedup counts keys of other parts once",
        "cc/lib/key_dedup.cc",
        "[from](int64_t j) { return from[j]; }",
        "[](int64_t) { return 1; }",
        "tests/cc/key_dedup_test.cc::KeysThatMeetAcrossParts",
    ),
    Mutation(
        "the gradient of a repeated key is lost",
        "cc/lib/grad_reduce.cc",
        "Add(of_feature + r * stride",
        "Copy(of_feature + r * stride",
        "tests/cc/duplicate_test.cc::ReduceGradsSums",
    ),
    Mutation(
        "the gradient of mean lacks 1 / n",
        "cc/lib/grad_reduce.cc",
        "AddScaled(bags.weight(i) * scale,",
        "AddScaled(bags.weight(i),",
        "tests/cc/duplicate_test.cc::ReducePooledGradsSums",
    ),
    Mutation(
        "mean divides by the number of keys and not by their weights",
        "cc/lib/duplicate.h",
        "sum += weights[n];",
        "sum += 1.0f;",
        "tests/cc/duplicate_test.cc::PoolRowsIsTheSum",
    ),
    Mutation(
        "max gives the gradient to the last of equal values",
        "cc/lib/max_pool.cc",
        "row[d] > best[d]",
        "row[d] >= best[d]",
        "tests/cc/max_pool_test.cc::TheFirstOfEqualValues",
    ),
    Mutation(
        "a padding row is updated",
        "cc/lib/sharded_table.h",
        "        if (IsPadding(keys[i])) rows[i] = nullptr;\n",
        "",
        "tests/cc/padding_key_test.cc::UpdatesPassThePaddingKey",
    ),
    Mutation(
        "an initial row depends on the order of the batch",
        "cc/lib/sharded_rows.h",
        "FillMissing(keys[*i], Missing::kInitial, row);",
        "FillMissing(*i, Missing::kInitial, row);",
        "tests/cc/table_threads_test.cc::ThreadsThatInsertTheSameKeys",
    ),
    Mutation(
        "the seed is ignored",
        "cc/lib/initial_row.cc",
        "Mix64(static_cast<uint64_t>(seed) + kStep)",
        "Mix64(kStep)",
        "tests/cc/initial_row_test.cc::DifferentSeeds",
    ),
    Mutation(
        "a row keeps the state of the key that had it before",
        "cc/lib/sharded_rows.h",
        "        std::copy(initial_state.begin(), initial_state.end(), row + state_at());\n",
        "",
        _TABLE_TEST,
    ),
    Mutation(
        "an update shares the table",
        "cc/lib/sharded_table.h",
        "    std::vector<float*> rows;\n    const std::unique_lock lock = LockAlone();\n",
        "    std::vector<float*> rows;\n    const std::shared_lock lock = LockShared();\n",
        "tests/cc/table_threads_test.cc::UpdatesOfManyThreads",
    ),
    Mutation(
        "a lookup that inserts sees half of an update",
        "cc/lib/sharded_table.h",
        "if (changes_ != *changes) {",
        "if (false) {",
        "tests/cc/table_threads_test.cc::ALookupThatInserts",
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
        "    ++layout_;\n    logs_.Add(keys, n);\n    rows_.Remove",
        "    logs_.Add(keys, n);\n    rows_.Remove",
        _LAST_LOOKUP_TEST,
    ),
    Mutation(
        "an update takes rows of before a new binding",
        "cc/lib/sharded_table.h",
        "    stored_state_width_ = -1;\n    ++layout_;\n",
        "    stored_state_width_ = -1;\n",
        _LAST_LOOKUP_TEST,
    ),
    Mutation(
        "an update takes rows of before a load",
        "cc/lib/sharded_table_saving.h",
        "  ++changes_;\n  ++layout_;\n  logs_.AddEverything();\n  if (changes",
        "  ++changes_;\n  logs_.AddEverything();\n  if (changes",
        "tests/cc/change_log_test.cc::AnUpdateAfterALoad",
    ),
    Mutation(
        "epsilon stands outside of Adagrad's root",
        "cc/lib/update_rules.h",
        "std::sqrt(a[d] + eps)",
        "(std::sqrt(a[d]) + eps)",
        _RULES_TEST,
    ),
    Mutation(
        "row-wise Adagrad sums where it should average",
        "cc/lib/update_rules.h",
        "s[0] += Dot(g, g, dim) / static_cast<float>(dim);",
        "s[0] += Dot(g, g, dim);",
        _RULES_TEST,
    ),
    Mutation(
        "the first of two values for a key is put into the table",
        "cc/lib/sharded_table.h",
        "for (int64_t i = 0; i < n; ++i) last[unique.inverse[i]] = i;",
        "for (int64_t i = n - 1; i >= 0; --i) last[unique.inverse[i]] = i;",
        _TABLE_TEST,
    ),
    Mutation(
        "max_norm is left out where nothing is inserted",
        "cc/lib/sharded_table.h",
        "for (int64_t i = begin; i < end; ++i) BoundNorm(out + i * options().dim);",
        "(void)begin, (void)end;",
        "tests/cc/max_norm_test.cc::OnlyALookupThatInserts",
    ),
    Mutation(
        "max_rows is off by one",
        "cc/lib/table.cc",
        "size + count <= max_rows) return {};",
        "size + count <= max_rows + 1) return {};",
        "tests/cc/table_errors_test.cc::ATableWithMaxRows",
    ),
    Mutation(
        "an optimizer that is no longer bound may update",
        "cc/lib/table.cc",
        "if (token != 0 && token != binding.token)",
        "if (false)",
        "tests/cc/table_errors_test.cc::ABadUpdate",
    ),
    Mutation(
        "counts do not decay",
        "cc/lib/key_counts.h",
        "const double count = factor * CountAt(at, k)",
        "const double count = CountAt(at, k)",
        "tests/cc/key_counts_test.cc::CountsDecayByTheFormula",
    ),
    Mutation(
        "the servers' shares of the keys are others",
        "cc/lib/partition.h",
        "0xd1b54a32d192ed03ull",
        "0xd1b54a32d192ed05ull",
        "tests/cc/partition_test.cc::TheServerOfAKeyNeverChanges",
    ),
    Mutation(
        "a server loads the keys of others",
        "cc/lib/sharded_rows_stream.h",
        "      if (share_.num_servers > 1) KeepOwn(&chunk);\n",
        "",
        "tests/cc/table_shares_test.cc::ATableOfAnyNumberOfServers",
    ),
    Mutation(
        "a confirmed save is forgotten",
        "cc/lib/change_log.h",
        "void Confirm() { taken_ = {}; }",
        "void Confirm() {}",
        "tests/cc/change_log_test.cc::WhatASaveTookStays",
    ),
    Mutation(
        "a save that failed loses its keys",
        "cc/lib/change_log.h",
        "      taken_.Try([&] { taken_.keys.Insert(fresh_.keys); });\n",
        "",
        "tests/cc/change_log_test.cc::WhatASaveTookStays",
    ),
    Mutation(
        "an update is missing from increments",
        "cc/lib/sharded_table.h",
        "    ++updates_;\n    logs_.Add(keys, n);\n",
        "    ++updates_;\n",
        _CHAIN_TEST,
    ),
    Mutation(
        "a norm that was bounded is missing from increments",
        "cc/lib/sharded_table.h",
        "    logs_.Add(found->keys.data(), found->keys.size());\n",
        "",
        _CHAIN_TEST,
    ),
    Mutation(
        "a removal is missing from a restored chain",
        "cc/lib/sharded_rows_stream.h",
        "      out_->Remove(chunk.removed.data(), chunk.removed.size(), pool_);\n",
        "",
        _CHAIN_TEST,
    ),
    Mutation(
        "the checksum of rows is skipped",
        "cc/lib/table_file.cc",
        '    if (crc != block.payload_crc) return Damaged("a block of rows", begin);\n',
        "",
        "tests/cc/table_file_test.cc::EveryFlippedByte",
    ),
    Mutation(
        "a block that is left out is not missed",
        "cc/lib/table_file.cc",
        "std::memcmp(&end, &end_, sizeof(end)) != 0",
        "false",
        "tests/cc/table_file_test.cc::ABlockLeftOut",
    ),
    Mutation(
        "memory is taken for rows that a file only announces",
        "cc/lib/table_file.cc",
        "    SPARSE_EMB_RETURN_IF_ERROR(CheckSize());\n",
        "",
        "tests/cc/forged_table_file_test.cc::AFileThatIsTooShort",
    ),
    Mutation(
        "one of several tables takes keys although another is full",
        "cc/kernels/embedding_lookup.cc",
        "      OP_REQUIRES_OK(ctx, ToAbsl((*tables[t])->CheckRoom(table_keys, splits.size(t), &pool)));\n",
        "",
        "tests/test_lookup_tables.py::test_a_full_table_is_an_error_that_changes_none",
    ),
    Mutation(
        "gradients that are not finite reach the rows",
        "cc/kernels/embedding_update.cc",
        "    if (check_finite_) OP_REQUIRES_OK(ctx, CheckFinite(keys, grads, names, splits, &pool));\n",
        "",
        "tests/test_embedding_update.py::test_a_gradient_that_is_not_finite_is_refused",
    ),
]

PYTHON = [
    Mutation(
        "row-wise Adam on a plain variable does not correct its second moment",
        "tf_sparse_emb/optimizers/row_wise_adam.py",
        "(tf.sqrt(v / v_correction) + self.epsilon)",
        "(tf.sqrt(v) + self.epsilon)",
        "tests/test_optimizers.py::test_row_wise_variables_chooses_the_plain_variables_that_are_row_wise",
    ),
    Mutation(
        "the mean square of a row is a sum",
        "tf_sparse_emb/optimizers/gradients.py",
        "return tf.reduce_mean(tf.square(grads)",
        "return tf.reduce_sum(tf.square(grads)",
        "tests/test_optimizers.py::test_row_wise_variables_chooses_the_plain_variables_that_are_row_wise",
    ),
    Mutation(
        "repeated rows of a plain variable are not summed",
        "tf_sparse_emb/optimizers/gradients.py",
        "    if not isinstance(grad, tf.IndexedSlices) or isinstance(grad, DistinctSlices):\n",
        "    if True:\n",
        "tests/test_optimizers.py::test_rows_and_state_follow_a_float64_twin_for_50_steps",
    ),
    Mutation(
        "tables are a step ahead of their optimizer",
        "tf_sparse_emb/optimizers/rule.py",
        "step=self.iterations + 1",
        "step=self.iterations + 2",
        "tests/test_optimizers.py::test_rows_and_state_follow_a_float64_twin_for_50_steps",
    ),
    Mutation(
        "gradients are not divided by the loss scale",
        "tf_sparse_emb/optimizers/gradient_limits.py",
        "lambda values: values / factor",
        "lambda values: values",
        "tests/test_optimizer_arguments.py::test_loss_scale_clipping_and_weight_decay_in_one_run",
    ),
    Mutation(
        "clipnorm is that of all tables of a group",
        "tf_sparse_emb/optimizers/gradient_limits.py",
        "target.split(values) if isinstance(target, TableGroup) else [values]",
        "[values]",
        "tests/test_optimizer_arguments.py::test_loss_scale_clipping_and_weight_decay_in_one_run",
    ),
    Mutation(
        "a variable changes before another's gradient is found not to be finite",
        "tf_sparse_emb/optimizers/sparse_optimizer.py",
        "checks = finite_checks(grads, targets) if self.check_finite else []",
        "checks = []",
        "tests/test_optimizers_guard.py::test_a_gradient_that_is_not_finite_is_refused_before_anything_changes",
    ),
    Mutation(
        "weight decay is not left out where it is excluded",
        "tf_sparse_emb/optimizers/sparse_optimizer.py",
        "if self.weight_decay and self._use_weight_decay(variable) else 0.0",
        "if self.weight_decay else 0.0",
        "tests/test_optimizer_arguments.py::test_tables_can_be_excluded_from_weight_decay",
    ),
    Mutation(
        "a learning rate of overrides is ignored",
        "tf_sparse_emb/optimizers/sparse_optimizer.py",
        "        if rate is None:\n            return learning_rate\n",
        "        if True:\n            return learning_rate\n",
        "tests/test_optimizer_contract.py::test_overrides_give_tables_rates_and_optimizers_of_their_own",
    ),
    Mutation(
        "scale_grad_by_freq multiplies",
        "tf_sparse_emb/look_up.py",
        "1.0 / tf.cast(part, tf.float32)",
        "tf.cast(part, tf.float32)",
        "tests/test_collection_tables.py::test_scale_grad_by_freq_divides_by_how_often_a_key_comes_over_all_features",
    ),
    Mutation(
        "the gradient of a weight forgets that it is in the divisor",
        "tf_sparse_emb/ops/embedding_duplicate.py",
        "(products - slope * bag_sum(c * products), divisor)",
        "(products, divisor)",
        "tests/test_embedding_duplicate.py::test_the_gradients_of_the_pooled_rows_are_numerically_right",
    ),
    Mutation(
        "a lookup says of any keys that they differ",
        "tf_sparse_emb/ops/embedding_lookup.py",
        'if op.get_attr("keys_differ"):',
        "if True:",
        "tests/test_distinct_slices.py::test_a_lookup_of_keys_that_may_repeat_gives_plain_slices",
    ),
    Mutation(
        "a call outside of training inserts keys",
        "tf_sparse_emb/layers/table_layer.py",
        "return bool(training) and self.trainable",
        "return training is not False and self.trainable",
        "tests/test_layer.py::test_only_training_true_inserts",
    ),
    Mutation(
        "the config has the seed of before a load",
        "tf_sparse_emb/layers/embedding.py",
        '            "seed": self.seed,\n            **super()',
        "            **super()",
        "tests/test_saving_table_files.py::test_the_seed_that_was_loaded_is_in_the_config_of_the_layer",
    ),
    Mutation(
        "a snapshot lacks the optimizer's state",
        "tf_sparse_emb/variable.py",
        "return TableSnapshot(keys, rows[:, : self.dim], rows[:, self.dim :], counts, rule.decode())",
        'return TableSnapshot(keys, rows[:, : self.dim], None, counts, "")',
        "tests/test_snapshots.py::test_a_snapshot_holds_keys_rows_state_counts_and_rule",
    ),
    Mutation(
        "the seed of what is loaded is ignored",
        "tf_sparse_emb/table_resource.py",
        '        self.set_seed(report["seed"])\n',
        "",
        "tests/test_saving_table_files.py::test_the_seed_that_was_loaded_is_in_the_config_of_the_layer",
    ),
    Mutation(
        "increments are never confirmed",
        "tf_sparse_emb/saving/incremental_checkpoint.py",
        "                log.confirm()\n",
        "                pass\n",
        "tests/test_incremental_checkpoint.py::test_an_increment_costs_what_has_changed",
    ),
    Mutation(
        "an increment follows a save of another",
        "tf_sparse_emb/saving/incremental_checkpoint.py",
        "            and latest == (self._last.number, self._last.id)\n",
        "",
        "tests/test_incremental_checkpoint.py::test_a_save_of_another_object_in_the_folder_makes_the_next_full",
    ),
]

MUTATIONS = CPP + PYTHON
