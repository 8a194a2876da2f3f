#pragma once
/// @file
/// Whether the tests are compiled with a sanitizer: 0 or 1. g++ and clang say so in different ways.

#if defined(__SANITIZE_ADDRESS__)
#define TINYMOE_TEST_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TINYMOE_TEST_ADDRESS_SANITIZER 1
#endif
#endif
#ifndef TINYMOE_TEST_ADDRESS_SANITIZER
#define TINYMOE_TEST_ADDRESS_SANITIZER 0
#endif

#if defined(__SANITIZE_THREAD__)
#define TINYMOE_TEST_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TINYMOE_TEST_THREAD_SANITIZER 1
#endif
#endif
#ifndef TINYMOE_TEST_THREAD_SANITIZER
#define TINYMOE_TEST_THREAD_SANITIZER 0
#endif

/// Either, which have an allocator of their own and need much memory.
#define TINYMOE_TEST_SANITIZED (TINYMOE_TEST_ADDRESS_SANITIZER || TINYMOE_TEST_THREAD_SANITIZER)
