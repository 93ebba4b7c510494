// Which of S servers has a key, and the keys of a batch server by server.
#ifndef TF_SPARSE_EMB_CC_LIB_PARTITION_H_
#define TF_SPARSE_EMB_CC_LIB_PARTITION_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cc/lib/hash.h"
#include "cc/lib/worker_pool.h"

namespace sparse_emb {

// In [0, num_servers), num_servers < 2^31. Not by HashKey, whose bits spread the keys of a table
// within it: those of one server would then crowd together there.
SPARSE_EMB_INLINE int64_t ServerOfKey(int64_t key, int64_t num_servers) {
  const uint64_t hash = Mix64(static_cast<uint64_t>(key) ^ 0xd1b54a32d192ed03ull);
  return static_cast<int64_t>(((hash >> 32) * static_cast<uint64_t>(num_servers)) >> 32);
}

// What one of S servers has of a table: the keys k with ServerOfKey(k, num_servers) == server,
// which are those of a range of a hash.
struct Share {
  int64_t server = 0;
  int64_t num_servers = 1;

  bool Has(int64_t key) const {
    return num_servers == 1 || ServerOfKey(key, num_servers) == server;
  }

  // Which part of the other share's keys this one has as well, about: 0 if none, 1 if all.
  double PartOf(const Share& other) const {
    const uint64_t both = std::min(End(), other.End()) -
                          std::min(std::max(Begin(), other.Begin()), std::min(End(), other.End()));
    return static_cast<double>(both) / (other.End() - other.Begin());
  }

 private:
  // The least h < 2^32 with h * num_servers >> 32 == server, and that of the next.
  uint64_t Begin() const { return FirstHash(server); }
  uint64_t End() const { return FirstHash(server + 1); }
  uint64_t FirstHash(uint64_t s) const { return ((s << 32) + num_servers - 1) / num_servers; }
};

// Where the keys of one server go.
struct ServerKeys {
  int64_t* keys;       // those of one table after those of the other, in their order in the batch
  int32_t* positions;  // of each in the batch
};

// The keys [N] of T tables, table by table, parted by server; splits [T + 1] as in the ops.
class Partition {
 public:
  Partition(const int64_t* keys, const int64_t* splits, int64_t num_tables, int64_t num_servers)
      : keys_(keys),
        splits_(splits),
        num_tables_(num_tables),
        num_servers_(num_servers),
        servers_(splits[num_tables]),
        counts_(num_tables * num_servers) {
    for (int64_t t = 0; t < num_tables; ++t) {
      int64_t* const counts = counts_.data() + t * num_servers;
      for (int64_t n = splits[t]; n < splits[t + 1]; ++n) {
        servers_[n] = static_cast<int32_t>(ServerOfKey(keys[n], num_servers));
        ++counts[servers_[n]];
      }
    }
  }

  // out [T + 1] = where the keys of each table stand among a server's; the last is how many it has.
  void Splits(int64_t server, int64_t* out) const {
    out[0] = 0;
    for (int64_t t = 0; t < num_tables_; ++t) {
      out[t + 1] = out[t] + counts_[t * num_servers_ + server];
    }
  }

  // Writes the keys of all servers, to[s] having room for those of server s.
  void Write(std::vector<ServerKeys> to) const {
    for (int64_t n = 0; n < splits_[num_tables_]; ++n) {
      ServerKeys& server = to[servers_[n]];
      *server.keys++ = keys_[n];
      *server.positions++ = static_cast<int32_t>(n);
    }
  }

 private:
  const int64_t* const keys_;
  const int64_t* const splits_;
  const int64_t num_tables_, num_servers_;
  std::vector<int32_t> servers_;  // of each key
  std::vector<int64_t> counts_;   // [T, S]
};

// part[i] = rows[positions[i]], rows of `dim` floats.
void TakeRows(const float* rows, const int32_t* positions, int64_t n, int64_t dim, float* part,
              WorkerPool* pool);

// rows[positions[i]] = part[i].
void PlaceRows(const float* part, const int32_t* positions, int64_t n, int64_t dim, float* rows,
               WorkerPool* pool);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_PARTITION_H_
