/*
 * The yardstick: a filesystem of the same tree and semantics as tdxfs in C, on libfuse 2's high-level API.
 *
 *     server TREE MOUNTPOINT [libfuse option...]
 *
 * TREE is a directory of plain files, read into memory at the start. One thread; an open owns its text, which
 * is made anew by each read at offset 0; entries are listed in kernfs's order, with types and inode numbers.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 26
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct node {
	struct node *next; /* of one hash bucket */
	char *path;
	const char *name;
	char *text; /* content or link target */
	size_t length;
	struct stat st;
	struct node **children;
	unsigned int *offsets;
	size_t count;
};

struct handle {
	struct node *node;
	char *text;
	size_t length;
};

#define BUCKETS (1 << 17)
static struct node *table[BUCKETS];
static ino_t last_ino = 1;

static unsigned int bucket(const char *path)
{
	unsigned long h = 5381;

	for (; *path; path++)
		h = h * 33 + (unsigned char)*path;
	return (h ^ h >> 17) % BUCKETS;
}

static struct node *find(const char *path)
{
	struct node *node = table[bucket(path)];

	while (node && strcmp(node->path, path))
		node = node->next;
	return node;
}

/* kernfs_name_hash() */
static unsigned int name_hash(const char *name)
{
	unsigned long x = 0;
	unsigned int h;

	for (; *name; name++) {
		unsigned char c = *name;

		x = (x + ((unsigned long)c << 4) + (c >> 4)) * 11;
	}
	h = (x * 0x61C8864680B583EBUL) >> 32 & 0x7fffffff;
	if (h < 2)
		h += 2;
	return h >= 0x7fffffff ? 0x7ffffffe : h;
}

static int by_hash(const void *a, const void *b)
{
	const struct node *one = *(struct node *const *)a, *other = *(struct node *const *)b;
	unsigned int x = name_hash(one->name), y = name_hash(other->name);

	return x < y ? -1 : x > y ? 1 : strcmp(one->name, other->name);
}

static void *need(void *memory)
{
	if (!memory) {
		perror("server");
		exit(1);
	}
	return memory;
}

static struct node *load(const char *place, const char *path)
{
	struct node *node = need(calloc(1, sizeof(*node)));
	struct stat st;
	unsigned int at;
	char buffer[65536];
	ssize_t got;

	if (lstat(place, &st)) {
		perror(place);
		exit(1);
	}
	node->path = need(strdup(path));
	node->name = strrchr(node->path, '/') + 1;
	node->st = st;
	node->st.st_ino = last_ino++;
	node->st.st_blocks = 0;
	node->st.st_blksize = 4096;
	node->st.st_size = 0;
	node->st.st_nlink = 1;
	at = bucket(path);
	node->next = table[at];
	table[at] = node;
	if (S_ISLNK(st.st_mode)) {
		got = readlink(place, buffer, sizeof(buffer) - 1);
		buffer[got] = 0;
		node->text = need(strdup(buffer));
		node->length = got;
	} else if (S_ISREG(st.st_mode)) {
		int fd = open(place, O_RDONLY);

		got = read(fd, buffer, sizeof(buffer));
		close(fd);
		node->text = need(malloc(got + 1));
		memcpy(node->text, buffer, got);
		node->length = got;
		node->st.st_size = 4096;
	} else if (S_ISDIR(st.st_mode)) {
		DIR *directory = need(opendir(place));
		struct dirent *entry;

		node->st.st_nlink = 2;
		while ((entry = readdir(directory))) {
			char *below, *child;

			if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
				continue;
			if (asprintf(&below, "%s/%s", place, entry->d_name) < 0 ||
			    asprintf(&child, "%s/%s", path[1] ? path : "", entry->d_name) < 0)
				exit(1);
			node->children = need(realloc(node->children, (node->count + 1) * sizeof(node)));
			node->children[node->count++] = load(below, child);
			node->st.st_nlink += S_ISDIR(node->children[node->count - 1]->st.st_mode);
			free(below);
			free(child);
		}
		closedir(directory);
		qsort(node->children, node->count, sizeof(node), by_hash);
		node->offsets = need(calloc(node->count + 1, sizeof(unsigned int)));
		for (size_t n = 0; n < node->count; n++)
			node->offsets[n] = name_hash(node->children[n]->name);
		node->offsets[node->count] = 0x7fffffff;
	}
	return node;
}

static int do_getattr(const char *path, struct stat *st)
{
	struct node *node = find(path);

	if (!node)
		return -ENOENT;
	*st = node->st;
	return 0;
}

static int do_readlink(const char *path, char *buffer, size_t size)
{
	struct node *node = find(path);

	if (!node)
		return -ENOENT;
	snprintf(buffer, size, "%s", node->text);
	return 0;
}

static int do_open(const char *path, struct fuse_file_info *info)
{
	struct node *node = find(path);
	struct handle *handle;
	int access = info->flags & O_ACCMODE;

	if (!node)
		return -ENOENT;
	if ((access != O_WRONLY && !(node->st.st_mode & 0444)) || (access != O_RDONLY && !(node->st.st_mode & 0222)))
		return -EACCES;
	if (info->flags & O_DIRECT)
		return -EINVAL;
	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return -ENOMEM;
	handle->node = node;
	info->fh = (unsigned long)handle;
	return 0;
}

static int do_read(const char *path, char *buffer, size_t size, off_t offset, struct fuse_file_info *info)
{
	struct handle *handle = (struct handle *)(unsigned long)info->fh;

	(void)path;
	if (offset == 0 || !handle->text) {
		free(handle->text);
		handle->length = handle->node->length;
		handle->text = malloc(handle->length + 1);
		if (!handle->text)
			return -ENOMEM;
		memcpy(handle->text, handle->node->text, handle->length);
	}
	if (offset < 0 || (size_t)offset >= handle->length)
		return 0;
	if (size > handle->length - offset)
		size = handle->length - offset;
	memcpy(buffer, handle->text + offset, size);
	return size;
}

static int do_release(const char *path, struct fuse_file_info *info)
{
	struct handle *handle = (struct handle *)(unsigned long)info->fh;

	(void)path;
	free(handle->text);
	free(handle);
	return 0;
}

static int do_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info)
{
	struct node *node = find(path);
	size_t at = 0;

	(void)info;
	if (!node)
		return -ENOENT;
	if (offset == 0 && fill(buffer, ".", &node->st, 1))
		return 0;
	if (offset <= 1 && fill(buffer, "..", &node->st, node->offsets[0]))
		return 0;
	if (offset > 1) {
		size_t high = node->count;

		while (at < high) {
			size_t middle = (at + high) / 2;

			if (node->offsets[middle] < offset)
				at = middle + 1;
			else
				high = middle;
		}
	}
	for (; at < node->count; at++)
		if (fill(buffer, node->children[at]->name, &node->children[at]->st, node->offsets[at + 1]))
			return 0;
	return 0;
}

static const struct fuse_operations operations = {
	.getattr = do_getattr,
	.readlink = do_readlink,
	.open = do_open,
	.read = do_read,
	.release = do_release,
	.readdir = do_readdir,
};

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: server TREE MOUNTPOINT [option...]\n");
		return 2;
	}
	load(argv[1], "/");
	argv[1] = argv[0];
	return fuse_main(argc - 1, argv + 1, &operations, NULL);
}
