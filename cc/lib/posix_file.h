// Files by POSIX calls, with errors as Status that name the file.
#ifndef TF_SPARSE_EMB_CC_LIB_POSIX_FILE_H_
#define TF_SPARSE_EMB_CC_LIB_POSIX_FILE_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "cc/lib/byte_stream.h"
#include "cc/lib/status.h"

namespace sparse_emb {

// A file that is open; closed when this goes.
class PosixFile final : public ByteSink, public ByteSource {
 public:
  PosixFile() = default;
  ~PosixFile() override { (void)Close(); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Status OpenToRead(const std::string& path);
  // A new file, `path` and what it takes for no other to have that name. Locked while it is open.
  Status Create(const std::string& path);
  // What is there already.
  Status OpenToWrite(const std::string& path);

  const std::string& path() const { return path_; }

  // A signal that the system would send for a full file or a closed pipe is kept from the process.
  Status Write(std::initializer_list<Bytes> pieces) override;
  // Sets room for so many bytes aside, where the file system can: a full disk shows at once, and
  // writing is quicker.
  Status Reserve(int64_t bytes);
  Status Read(void* data, int64_t bytes, int64_t* got) override;
  int64_t Size() const override;  // of a regular file
  // Waits until the disk has it.
  Status Sync();
  Status Close();

 private:
  Status Open(const std::string& path, int flags);

  std::string path_;
  int fd_ = -1;
};

// Whether something is at `path` that is no regular file.
bool IsSpecialFile(const std::string& path);

// Gives a file another name, which is then its only one, in the place of what had it.
Status Rename(const std::string& from, const std::string& to);
void RemoveIfThere(const std::string& path);

// Removes the files that Create(`path`) made in processes which were killed before they closed
// them. On file systems without locks (flock) they stay.
void RemoveAbandoned(const std::string& path);

// Waits until the disk has the names in the folder of `path`.
Status SyncFolderOf(const std::string& path);

}  // namespace sparse_emb

#endif  // TF_SPARSE_EMB_CC_LIB_POSIX_FILE_H_
