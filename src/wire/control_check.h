/* SPDX-License-Identifier: Apache-2.0 */
/* control_check.h - is a message that came from a peer within its limits? One function for each message that needs one; private to control.c and
 * its tests. */
#ifndef STRATA_WIRE_CONTROL_CHECK_H
#define STRATA_WIRE_CONTROL_CHECK_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

bool control_check(const ProtobufCMessage *msg);

#endif
