#include "cc/lib/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace sparse_emb {
namespace {

Status SystemError(const char* what, const std::string& path) {
  const int error = errno;
  Code code = Code::kUnavailable;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) code = Code::kResourceExhausted;
  if (error == ENOENT || error == ENOTDIR) code = Code::kNotFound;
  return Error(code, "cannot ", what, " '", path, "': ", std::strerror(error));
}

// While it lives, this thread gets EFBIG and EPIPE from a write and not a signal that ends the
// process.
class WriteSignalsHeld {
 public:
  WriteSignalsHeld() {
    sigemptyset(&held_);
    sigaddset(&held_, SIGXFSZ);
    sigaddset(&held_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &held_, &before_);
  }
  ~WriteSignalsHeld() {
    const int error = errno;
    // Takes what has come, but for what was held by others before.
    sigset_t pending;
    sigpending(&pending);
    for (int signal : {SIGXFSZ, SIGPIPE}) {
      if (!sigismember(&pending, signal) || sigismember(&before_, signal)) continue;
      sigset_t one;
      sigemptyset(&one);
      sigaddset(&one, signal);
      const timespec now = {0, 0};
      sigtimedwait(&one, nullptr, &now);
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = error;
  }

 private:
  sigset_t held_, before_;
};

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return path.substr(0, std::max<size_t>(slash, 1));
}

bool IsThere(int fd) {
  struct stat info;
  return fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_nlink > 0;
}

// Whether `name` is one that Create gives to files of `begin`: <process>-<number> follows.
bool IsCreated(const std::string& name, const std::string& begin) {
  if (name.compare(0, begin.size(), begin) != 0) return false;
  const char* kDigits = "0123456789";
  const size_t dash = name.find_first_not_of(kDigits, begin.size());
  return dash != std::string::npos && dash > begin.size() && name[dash] == '-' &&
         dash + 1 < name.size() && name.find_first_not_of(kDigits, dash + 1) == std::string::npos;
}

}  // namespace

Status PosixFile::Open(const std::string& path, int flags) {
  path_ = path;
  do {
    fd_ = open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EINTR);
  return fd_ < 0 ? SystemError("open", path) : Status();
}

Status PosixFile::OpenToRead(const std::string& path) { return Open(path, O_RDONLY); }
Status PosixFile::OpenToWrite(const std::string& path) { return Open(path, O_WRONLY); }

Status PosixFile::Create(const std::string& path) {
  static std::atomic<int64_t> count{0};
  for (;;) {
    const std::string name = path + std::to_string(getpid()) + "-" + std::to_string(count++);
    Status status = Open(name, O_WRONLY | O_CREAT | O_EXCL);
    // A process of this number was killed here before.
    if (!status.ok() && errno == EEXIST) continue;
    if (!status.ok()) return status;
    const bool locked = flock(fd_, LOCK_EX | LOCK_NB) == 0;
    if (locked ? IsThere(fd_) : errno != EWOULDBLOCK) return {};
    // RemoveAbandoned came between the two calls.
    SPARSE_EMB_RETURN_IF_ERROR(Close());
  }
}

Status PosixFile::Write(std::initializer_list<Bytes> pieces) {
  const WriteSignalsHeld held;
  constexpr size_t kMost = 4;
  iovec left[kMost];
  int count = 0;
  for (const Bytes& piece : pieces) {
    left[count++] = {const_cast<void*>(piece.data), static_cast<size_t>(piece.size)};
  }
  for (iovec* at = left; at != left + count;) {
    const ssize_t written = writev(fd_, at, static_cast<int>(left + count - at));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SystemError("write to", path_);
    size_t rest = written;
    for (; at != left + count && rest >= at->iov_len; ++at) rest -= at->iov_len;
    if (at == left + count) break;
    at->iov_base = static_cast<char*>(at->iov_base) + rest;
    at->iov_len -= rest;
  }
  return {};
}

Status PosixFile::Reserve(int64_t bytes) {
  const WriteSignalsHeld held;
  if (bytes == 0 || fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, bytes) == 0) return {};
  return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? SystemError("write to", path_)
                                                              : Status();
}

Status PosixFile::Read(void* data, int64_t bytes, int64_t* got) {
  char* at = static_cast<char*>(data);
  *got = 0;
  while (*got < bytes) {
    const ssize_t count = read(fd_, at + *got, std::min<int64_t>(bytes - *got, 1 << 30));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError("read from", path_);
    if (count == 0) break;
    *got += count;
  }
  return {};
}

int64_t PosixFile::Size() const {
  struct stat info;
  return fstat(fd_, &info) == 0 && S_ISREG(info.st_mode) ? info.st_size : -1;
}

Status PosixFile::Sync() { return fsync(fd_) == 0 ? Status() : SystemError("write to", path_); }

Status PosixFile::Close() {
  if (fd_ < 0) return {};
  const int fd = fd_;
  fd_ = -1;
  return close(fd) == 0 || errno == EINTR ? Status() : SystemError("write to", path_);
}

bool IsSpecialFile(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
}

Status Rename(const std::string& from, const std::string& to) {
  return std::rename(from.c_str(), to.c_str()) == 0 ? Status() : SystemError("write to", to);
}

void RemoveIfThere(const std::string& path) { (void)unlink(path.c_str()); }

void RemoveAbandoned(const std::string& path) {
  const std::string folder = FolderOf(path), begin = path.substr(path.rfind('/') + 1);
  DIR* entries = opendir(folder.c_str());
  if (entries == nullptr) return;
  while (const dirent* entry = readdir(entries)) {
    if (!IsCreated(entry->d_name, begin)) continue;
    const std::string abandoned = folder + "/" + entry->d_name;
    const int fd = open(abandoned.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) continue;
    // The lock of a process goes with it.
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && IsThere(fd)) RemoveIfThere(abandoned);
    close(fd);
  }
  closedir(entries);
}

Status SyncFolderOf(const std::string& path) {
  PosixFile folder;
  SPARSE_EMB_RETURN_IF_ERROR(folder.OpenToRead(FolderOf(path)));
  return folder.Sync();
}

}  // namespace sparse_emb
