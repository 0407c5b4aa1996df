"""Foundation models to inherit from, behind one interface; one adapter per host library, imported when it is asked for."""

from sparseformers.teachers.base import Teacher, TeacherIdentity, TeacherOutput
from sparseformers.teachers.registry import absolute_name, load_teacher, untrained_teacher

__all__ = ["Teacher", "TeacherIdentity", "TeacherOutput", "absolute_name", "load_teacher", "untrained_teacher"]
