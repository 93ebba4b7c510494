// TensorFlow's gRPC server listens on every address of the machine, whatever its cluster says:
// "0.0.0.0:port" is written into it. Here its calls of bind() are led through a function that binds
// that port to one address. An executable finds functions of other libraries by tables of
// addresses; what is for `bind` in those of TensorFlow's libraries is replaced (ELF, "Dynamic
// Linking" of the System V ABI).
#include <arpa/inet.h>
#include <elf.h>
#include <link.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace sparse_emb {
namespace {

in6_addr listen_address;  // an IPv4 address as ::ffff:a.b.c.d
uint16_t listen_port;     // in network order

int BindToAddress(int fd, const sockaddr* address, socklen_t length) {
  if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 changed;
    std::memcpy(&changed, address, sizeof(changed));
    if (changed.sin6_port == listen_port && IN6_IS_ADDR_UNSPECIFIED(&changed.sin6_addr)) {
      changed.sin6_addr = listen_address;
      return bind(fd, reinterpret_cast<const sockaddr*>(&changed), sizeof(changed));
    }
  }
  if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in changed;
    std::memcpy(&changed, address, sizeof(changed));
    if (changed.sin_port == listen_port && changed.sin_addr.s_addr == INADDR_ANY &&
        IN6_IS_ADDR_V4MAPPED(&listen_address)) {
      std::memcpy(&changed.sin_addr, listen_address.s6_addr + 12, 4);
      return bind(fd, reinterpret_cast<const sockaddr*>(&changed), sizeof(changed));
    }
  }
  return bind(fd, address, length);
}

// Sets a pointer that the loader may have made read-only.
bool SetPointer(uintptr_t where, uintptr_t value) {
  const uintptr_t page_size = sysconf(_SC_PAGESIZE);
  void* const page = reinterpret_cast<void*>(where / page_size * page_size);
  if (mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0) return false;
  *reinterpret_cast<uintptr_t*>(where) = value;
  return true;
}

int ReplaceBind(dl_phdr_info* library, size_t, void* replaced) {
  const char* const slash = std::strrchr(library->dlpi_name, '/');
  const char* const name = slash == nullptr ? library->dlpi_name : slash + 1;
  if (std::strstr(name, "tensorflow") == nullptr) return 0;
  const ElfW(Dyn)* entry = nullptr;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    if (library->dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    entry = reinterpret_cast<const ElfW(Dyn)*>(library->dlpi_addr + library->dlpi_phdr[i].p_vaddr);
  }
  if (entry == nullptr) return 0;
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  const ElfW(Rela) * tables[2] = {nullptr, nullptr};
  size_t sizes[2] = {0, 0};
  for (; entry->d_tag != DT_NULL; ++entry) {
    switch (entry->d_tag) {
      case DT_SYMTAB:
        symbols = reinterpret_cast<const ElfW(Sym)*>(entry->d_un.d_ptr);
        break;
      case DT_STRTAB:
        names = reinterpret_cast<const char*>(entry->d_un.d_ptr);
        break;
      case DT_JMPREL:
        tables[0] = reinterpret_cast<const ElfW(Rela)*>(entry->d_un.d_ptr);
        break;
      case DT_PLTRELSZ:
        sizes[0] = entry->d_un.d_val / sizeof(ElfW(Rela));
        break;
      case DT_RELA:
        tables[1] = reinterpret_cast<const ElfW(Rela)*>(entry->d_un.d_ptr);
        break;
      case DT_RELASZ:
        sizes[1] = entry->d_un.d_val / sizeof(ElfW(Rela));
        break;
    }
  }
  if (symbols == nullptr || names == nullptr) return 0;
  for (int table = 0; table < 2; ++table) {
    for (size_t i = 0; tables[table] != nullptr && i < sizes[table]; ++i) {
      const ElfW(Rela) & relocation = tables[table][i];
      const size_t symbol = ELF64_R_SYM(relocation.r_info);
      if (symbol == 0 || std::strcmp(names + symbols[symbol].st_name, "bind") != 0) continue;
      *static_cast<int*>(replaced) += SetPointer(library->dlpi_addr + relocation.r_offset,
                                                 reinterpret_cast<uintptr_t>(&BindToAddress));
    }
  }
  return 0;
}

}  // namespace
}  // namespace sparse_emb

// Has TensorFlow's servers that this process makes from now on listen at `address`, 16 bytes, where
// they would listen at `port` on all. Returns how many calls were replaced; 0: the server will
// listen on all addresses.
extern "C" __attribute__((visibility("default"))) int SparseEmbListenAt(const uint8_t* address,
                                                                        int port) {
  std::memcpy(&sparse_emb::listen_address, address, 16);
  sparse_emb::listen_port = htons(static_cast<uint16_t>(port));
  int replaced = 0;
  dl_iterate_phdr(&sparse_emb::ReplaceBind, &replaced);
  return replaced;
}
