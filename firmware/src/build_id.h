/*
 * build_id.h: which build this is; the definition is written by platform/builder/main.py, so that nothing else depends on it.
 */
#ifndef BUILD_ID_H
#define BUILD_ID_H

/* 16 hexadecimal digits of a hash over everything that went into the build; zeros when built by hand. */
extern const char build_id[];

#endif
