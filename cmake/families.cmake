# Writes MOUE_FAMILY(name) for every converters/name.cpp into families.inc, sorted by name.
file(GLOB family_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/converters/*.cpp)
set(family_lines "")
foreach(file IN LISTS family_files)
  get_filename_component(name ${file} NAME_WE)
  string(APPEND family_lines "MOUE_FAMILY(${name})\n")
endforeach()
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/families.inc CONTENT "${family_lines}")
