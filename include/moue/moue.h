// The table of contents, in the order of the pipeline. model.h (LibTorch) is included by those who
// need it.
#pragma once

#include "moue/checkpoint.h"   // Checkpoint: a model directory
#include "moue/config.h"       // Config: config.json with typed access
#include "moue/convert.h"      // convert: writes the upgraded checkpoint
#include "moue/converter.h"    // what files in converters/ share
#include "moue/error.h"        // Error: what a user can mend
#include "moue/family.h"       // Family: what each tensor is; claim() recognises all of them
#include "moue/initial.h"      // a model that was never trained
#include "moue/inspect.h"      // inspect: what is there
#include "moue/log.h"          // where lines and progress go
#include "moue/measure.h"      // measure: runs the model on tokens
#include "moue/plan.h"         // plan: which experts the layers shall share
#include "moue/pool.h"         // Pool: which physical experts each layer lists
#include "moue/recipe.h"       // Recipe: the options of all verbs, from a file and the command line
#include "moue/report.h"       // Report: facts, checks with bounds, tables, pictures
#include "moue/safetensors.h"  // one weight file, read lazily, written whole
#include "moue/spec.h"         // ModelSpec: how a family computes, as data
#include "moue/statistics.h"   // Statistics: what a running model showed
#include "moue/train.h"        // train: opens the pool and goes on training
#include "moue/validate.h"     // validate: proves what is equal, measures what is not
#include "moue/version.h"      // kVersion
