// A table in a file.
//
//   file    = magic "TSETABLE" | uint32 version | uint32 byte order | uint32 M | uint32 crc
//           | description of the table, M bytes | save | block ... | end
//   block   = uint32 'ROWS' | uint32 n | uint64 payload bytes | uint32 crc of the payload
//           | uint32 crc of the 20 bytes before | payload
//   payload = keys, int64 [n] | rows, float32 [n, row_floats]
//   end     = a block 'DONE' whose payload is uint64 rows | uint64 blocks | uint32 crc of all crcs
//
// A file of version 1 has no `save`. In version 2 it tells a save of a chain from all others: a
// block 'SAVE', n = 1 for an increment, 0 for a whole table, with the save's name as its payload.
// An increment has blocks 'GONE' as well, with keys that were removed: int64 [n]. `rows` of the end
// counts them too.
//
// The description is TableMeta::Encode's, its crc covers what stands before as well; crcs are
// CRC-32C. Numbers have the byte order of the machine that wrote them; the field "byte order" holds
// 0x01020304, and a machine of the other order refuses the file. Every byte is covered by a crc or
// compared with what it must be, and nothing may follow the end: a file that was damaged or cut off
// anywhere is found out. Checksums do not tell who made the file: a reader takes memory only for
// bytes that are there, whatever the file says of itself.
#ifndef TF_SPARSE_EMB_CC_LIB_TABLE_FILE_H_
#define TF_SPARSE_EMB_CC_LIB_TABLE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "cc/lib/byte_stream.h"
#include "cc/lib/table_stream.h"

namespace sparse_emb {

// Writes a table to a file that appears, whole, under its name at End: until then its bytes are in
// a file beside it, `<path>.unfinished-<process>-<number>`, which an error removes, and the next
// writer if the process is killed. `durable` makes End wait until the disk has the bytes and the
// name, so that the old file or the new one is there after a power failure too. What is at `path`
// and is no regular file (a pipe) is written in place.
//
// Errors name the file: a full disk, a quota or a limit of file size is kResourceExhausted, a
// missing folder kNotFound, else kUnavailable.
std::unique_ptr<RowSink> MakeTableFileWriter(std::string path, bool durable);

// Writes the bytes of such a file, whose errors are those of `bytes`.
std::unique_ptr<RowSink> MakeTableBytesWriter(ByteSink* bytes);

// Reads such a file, front to back, a pipe too. `name` stands for it in errors; empty: the path.
// With `save`, the file must be of that save. A file that is damaged, cut off or something else is
// kDataLoss, one of a newer version or the other byte order kInvalidArgument, one that is not there
// kNotFound.
std::unique_ptr<RowSource> MakeTableFileReader(std::string path, std::string name = "",
                                               std::string save = "");

// Reads the bytes of such a file; `name` stands for it in errors.
std::unique_ptr<RowSource> MakeTableBytesReader(ByteSource* bytes, std::string name);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_TABLE_FILE_H_
