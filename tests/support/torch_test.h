// First include of a test with LibTorch: torch, then Catch2, whose CHECK must win over c10's.
#pragma once

#include "model/torch.h"
#undef CHECK
#include <catch2/catch.hpp>
