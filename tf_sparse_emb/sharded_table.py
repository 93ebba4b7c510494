"""A table that is spread over parameter servers."""

import tensorflow as tf

from tf_sparse_emb.ops.embedding_partition import partition_keys, stitch
from tf_sparse_emb.table_resource import TableResource, fill, warn_of_loss


class ShardedTable(tf.Module):
    """Tables on servers, each with the keys that a hash gives it; the methods are those of `TableRows`.

    A shard is a hash table whatever the storage asked for: an array of all keys would be mostly empty. Of a table of
    the storage "index" a row is made when it is first needed, which gives the same rows, unless its initializer makes
    all rows at once: then they are sent to the servers here.

    Args:
        servers: `Servers`.
        all_rows, count_decay, **options: as for `TableResource`. Each shard has at most max_rows // S rows.

    Attributes:
        shards: list of `TableResource`, one for each server.
    """

    def __init__(self, servers, *, all_rows=None, count_decay, **options):
        super().__init__()
        self.servers, self._all_rows = servers, all_rows
        num_servers = len(servers.devices)
        if 0 <= options["max_rows"] < num_servers:
            raise ValueError(
                f"max_rows must be at least 1 for each of {num_servers} servers, got {options['max_rows']}"
            )
        of_shard = {
            **options,
            "storage": "slab" if options["storage"] == "index" else options["storage"],
            "max_rows": options["max_rows"] // num_servers if options["max_rows"] >= 0 else -1,
        }
        self.shards = [TableResource(count_decay=count_decay, device=device, **of_shard) for device in servers.devices]
        with tf.init_scope():
            self._fill()

    @property
    def name(self):
        """The name for error messages."""
        return self.shards[0].name

    @property
    def options(self):
        """As `TableResource.options`, of a shard."""
        return self.shards[0].options

    @property
    def has_all_rows(self):
        """As `TableResource.has_all_rows`."""
        return self._all_rows is not None

    def _fill(self):
        if self.has_all_rows:
            fill(self, self.options, self._all_rows())

    def take(self, report, source, had_all_rows=False):
        """As `TableResource.take`, after all shards have been loaded."""
        for shard in self.shards:
            shard.set_seed(report["seed"])
        had_all_rows = had_all_rows or report["storage"] == "index"
        if not (had_all_rows and report["input_dim"] == self.options["input_dim"]):
            self._fill()
        warn_of_loss(self, report, source)

    @property
    def seed(self):
        """The seed of the initial rows."""
        return self.shards[0].seed

    def _parted(self, keys):
        return partition_keys(keys, None, 1, len(self.shards))

    def _read(self, keys, read):
        """What `read(shard, its keys)` returns, in the order of the keys."""
        partition, parts = self._parted(keys), []
        for shard, shard_keys in zip(self.shards, partition.keys, strict=True):
            with tf.device(shard.device):
                parts.append(read(shard, shard_keys))
        return stitch(parts, partition.positions, tf.size(keys))

    def _write(self, keys, values, write):
        """`write(shard, its keys, and of each of values [N, ...] those of its keys)` for every shard."""
        partition, writes = self._parted(keys), []
        for shard, shard_keys, positions in zip(self.shards, partition.keys, partition.positions, strict=True):
            of_shard = [tf.gather(value, positions) for value in values]
            with tf.device(shard.device):
                writes.append(write(shard, shard_keys, *of_shard))
        return _grouped(writes)

    def check_rows(self, finite):
        """As `TableRows.check_rows`, of all shards, and that each key is on its server."""
        rows = []
        for server, shard in enumerate(self.shards):
            with tf.device(shard.device):
                rows.append(shard.check_rows(finite, server, len(self.shards)))
        return tf.add_n(rows)

    def _sum(self, read):
        sums = []
        for shard in self.shards:
            with tf.device(shard.device):
                sums.append(read(shard))
        return tf.add_n(sums)

    def read_rows(self, keys):
        """The rows of keys with their state, float32 [N, D + S]."""
        return self._read(keys, TableResource.read_rows)

    def contains(self, keys):
        """Whether each key is in the table, bool [N]."""
        return self._read(keys, TableResource.contains)

    def key_counts(self, keys):
        """The counts of keys, float64 [N, K]."""
        return self._read(keys, TableResource.key_counts)

    def upsert(self, keys, rows):
        """Sets the embeddings of keys."""
        return self._write(keys, [rows], TableResource.upsert)

    def scatter_add(self, keys, rows):
        """Adds to the embeddings of keys."""
        return self._write(keys, [rows], TableResource.scatter_add)

    def remove(self, keys):
        """Forgets keys."""
        return self._write(keys, [], TableResource.remove)

    def add_counts(self, keys, amounts, keys_differ):
        """Adds to the counts of keys."""
        return self._write(
            keys, [amounts], lambda shard, own, amount: TableResource.add_counts(shard, own, amount, keys_differ)
        )

    def clear(self):
        """Forgets all keys."""
        return _grouped([shard.clear() for shard in self.shards])

    def size(self):
        """The number of rows, int64 scalar."""
        return self._sum(TableResource.size)

    def memory_bytes(self):
        """The bytes of all, int64 scalar."""
        return self._sum(TableResource.memory_bytes)

    def statistics(self):
        """As `TableRows.statistics`, of all shards together."""
        each = tf.stack([shard.statistics() for shard in self.shards])
        is_max = tf.range(7) == 3
        return tf.where(is_max, tf.reduce_max(each, 0), tf.reduce_sum(each, 0))

    def export(self, cursor, max_rows, with_state):
        """Keys, rows, counts, the rule of the state, and the next cursor; in eager mode."""
        if not tf.executing_eagerly():
            raise RuntimeError(f"table '{self.name}' is spread over servers and can be exported in eager mode only")
        # A cursor is that of a shard, times their number, plus which it is.
        cursor, left, parts = int(cursor), int(max_rows), []
        while not parts or (left > 0 and cursor >= 0):
            inner, s = divmod(cursor, len(self.shards))
            *part, inner = self.shards[s].export(inner, left, with_state)
            parts.append(part)
            left -= len(part[0])
            following = s + 1 if s + 1 < len(self.shards) else -1
            cursor = int(inner) * len(self.shards) + s if inner >= 0 else following
        keys, rows, counts, rules = zip(*parts, strict=True)
        return tf.concat(keys, 0), tf.concat(rows, 0), tf.concat(counts, 0), rules[-1], tf.constant(cursor, tf.int64)

    def restore(self, keys, rows, counts, rule):
        """Replaces all rows by these."""
        return self._write(
            keys, [rows, counts], lambda shard, own, row, count: TableResource.restore(shard, own, row, count, rule)
        )

    def bind(self, rule, initial_state):
        """Binds all shards to a rule: the numbers of the bindings, and the rule whose state is dropped."""
        bound = [shard.bind(rule, initial_state) for shard in self.shards]
        return tuple(binding for binding, _ in bound), next((dropped for _, dropped in bound if dropped), "")

    def save(self, path, **kwargs):
        """Raises: each server would write a file of its own."""
        self.refuse("saved in this form")

    def saved_blocks(self, block_bytes):
        """Raises, as `save`."""
        self.save(None)

    def load(self, path, **kwargs):
        """Raises, as `save`."""
        self.refuse("loaded from this form")

    def load_blocks(self, blocks, **kwargs):
        """Raises, as `load`."""
        self.load(None)

    def check(self, path):
        """Raises, as `load` would."""
        self.load(path)

    def exported(self):
        """Raises, as `save`."""
        self.refuse("exported in this form")

    def refuse(self, what):
        """Raises the RuntimeError of a table that cannot be `what`, and says what can be done."""
        raise RuntimeError(
            f"table '{self.name}' is spread over {len(self.shards)} servers and cannot be {what}. "
            "tse.saving.IncrementalCheckpoint saves it, and restores it on any number of servers or in one process, "
            "where it can be saved, loaded and exported in every form"
        )


def _grouped(writes):
    return tf.group(*writes) if any(write is not None for write in writes) else None
