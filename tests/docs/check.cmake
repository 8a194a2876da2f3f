# cmake -D doxygen=… -D source=… -D build=… -P check.cmake: builds the API reference, to build/docs. It is a failure where
# Doxygen finds a mistake in a comment (an unknown command, parameter or reference), or a type, function or constant of a
# namespace without a comment. Members may go without one.
if(NOT doxygen)
  message("SKIPPED: there is no Doxygen; scripts/install_dependencies.sh --docs installs it")
  return()
endif()
set(settings ${build}/Doxyfile)
set(log ${build}/doxygen.log)
file(WRITE ${settings} "@INCLUDE = docs/Doxyfile
OUTPUT_DIRECTORY = \"${build}\"
WARN_IF_UNDOCUMENTED = YES
WARN_AS_ERROR = NO
WARN_LOGFILE = \"${log}\"
")
execute_process(COMMAND ${doxygen} ${settings} WORKING_DIRECTORY ${source} RESULT_VARIABLE status)
if(NOT status EQUAL 0 OR NOT EXISTS ${build}/docs/index.html)
  message(FATAL_ERROR "doxygen failed: ${status}")
endif()
file(STRINGS ${log} lines ENCODING UTF-8)
set(faults "")
foreach(line IN LISTS lines)
  if(NOT line MATCHES ": Member .* of (class|struct|union) .* is not documented\\.$")
    string(APPEND faults "${line}\n")
  endif()
endforeach()
# What the first page names is there: each name is a link.
file(READ ${source}/docs/api.md text)
file(READ ${build}/docs/index.html page)
string(REGEX MATCHALL "`tinymoe::[A-Za-z_]+(\\(\\))?`" names "${text}")
foreach(name IN LISTS names)
  string(REPLACE "`" "" name "${name}")
  string(FIND "${page}" ">${name}</a>" place)
  if(place EQUAL -1)
    string(APPEND faults "docs/api.md: there is no ${name}\n")
  endif()
endforeach()
if(NOT names)
  string(APPEND faults "docs/api.md: names nothing\n")
endif()
if(NOT faults STREQUAL "")
  message(FATAL_ERROR "${faults}")
endif()
