// Reads names of safetensors files, one a line, and prints for each "read", or why it is refused.
// safetensors_reference.py compares it with the format's own implementation.
#include <iostream>
#include <string>

#include "moue/error.h"
#include "moue/safetensors.h"

int main() {
  std::ios::sync_with_stdio(false);
  for (std::string name; std::getline(std::cin, name);) {
    try {
      const moue::SafetensorsFile file(name);
      for (const moue::TensorInfo& tensor : file.tensors()) file.read(tensor);
      std::cout << "read\n";
    } catch (const moue::Error& error) {
      std::cout << error.what() << '\n';
    }
  }
  return 0;
}
