# Makes each test case of a Catch2 program a test of ctest. Catch2's own catch_discover_tests reads the names as a CMake
# list, which a name with an odd bracket ("[0, 1)") breaks, and differs between versions 2 and 3; this asks the program
# when ctest starts, so that the names are up to date.

if(CMAKE_SCRIPT_MODE_FILE OR NOT COMMAND add_executable)
  # Run by ctest, with tinymoe_program and tinymoe_room set.
  set(output "")
  if(EXISTS "${tinymoe_program}")
    execute_process(COMMAND "${tinymoe_program}" --libidentify OUTPUT_VARIABLE version ERROR_QUIET)
    set(list --list-tests --verbosity quiet)
    if(version MATCHES "version: +2")
      set(list --list-test-names-only)
    endif()
    execute_process(COMMAND "${tinymoe_program}" ${list} OUTPUT_VARIABLE output ERROR_QUIET)
  endif()
  if(NOT output MATCHES "\n")
    # Not built, or not able to start: a test that fails, rather than silence.
    add_test("${tinymoe_room}: starts" "${tinymoe_program}")
  endif()
  while(output MATCHES "^([^\n]*)\n(.*)$")
    set(name "${CMAKE_MATCH_1}")
    set(output "${CMAKE_MATCH_2}")
    if(name STREQUAL "")
      continue()
    endif()
    string(REGEX REPLACE "([][,\\\\])" "\\\\\\1" specification "${name}")
    # Catch2 exits with the number of failed assertions and ctest takes 4 for a skipped test, so it stops at the third.
    add_test("${tinymoe_room}: ${name}" "${tinymoe_program}" "${specification}" --abortx 3)
    set_tests_properties("${tinymoe_room}: ${name}" PROPERTIES LABELS "${tinymoe_room}" SKIP_RETURN_CODE 4 TIMEOUT 300)
  endwhile()
  return()
endif()

# discover_tests(program room): the test cases of the target `program`, as "room: name".
function(discover_tests program room)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/${program}.cmake)
  file(GENERATE OUTPUT ${file} CONTENT "set(tinymoe_program [==[$<TARGET_FILE:${program}>]==])
set(tinymoe_room ${room})
include([==[${CMAKE_CURRENT_FUNCTION_LIST_FILE}]==])
")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${file})
endfunction()
