# Sets tinymoe_compiler_flags: what this compiler needs to compile tinymoe rightly, a list for $<COMPILE_LANGUAGE:CXX>.
# Part of tinymoe::tinymoe, here and, installed, by find_package: another project may have another compiler.
set(tinymoe_compiler_flags "")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION MATCHES "^12\\."
   AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  # It copies a constant {a, a, 0, 0} as {a, a, a, a} where it may move 32 bytes at once, as in functions for AVX-512:
  # docs/consume.md.
  set(tinymoe_compiler_flags -mmove-max=128 -mstore-max=128)
endif()
